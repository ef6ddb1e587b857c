"""What this operator allows beyond terms and permissions: `decide(policy, request) -> Decision`, pure."""
