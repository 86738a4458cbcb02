"""Questions and changes, one file per noun, in SQL that every engine understands."""
