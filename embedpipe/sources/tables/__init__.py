"""Files of tables, their columns and the payloads in their cells."""
