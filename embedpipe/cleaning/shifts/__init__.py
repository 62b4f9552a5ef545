"""`shift`: whether new rows are like old ones, and the accuracy to expect on them."""
