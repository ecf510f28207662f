"""Published records: finished runs as small files with checksums, to be kept in git. No torch."""
