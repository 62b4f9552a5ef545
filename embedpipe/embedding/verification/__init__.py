"""Is a store whole, does its backbone still give the same vectors, and what would a cheaper setting change?"""
