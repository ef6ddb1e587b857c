"""A small basic part: registration, PDU session and event exposure, so that no influence on it is measured."""
