"""The pages of vectors in Parquet files, read and written as blocks."""
