"""Many texts of many callers → full batches on device workers → vectors."""
