"""Types that the AMF and the SMF share; patterns are those of TS 29.571."""

from typing import Annotated

import msgspec

Supi = Annotated[str, msgspec.Meta(pattern=r"^(imsi-[0-9]{5,15}|nai-.+|gci-.+|gli-.+)$", max_length=255)]
Uri = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/]+", max_length=2048)]
Text = Annotated[str, msgspec.Meta(max_length=255)]
