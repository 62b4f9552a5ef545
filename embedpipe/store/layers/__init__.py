"""Vector columns that a store gets after its rows."""
