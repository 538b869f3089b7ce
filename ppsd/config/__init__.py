"""The configuration file: tables, reading, editing, access rules, keys."""
