"""The serve process: network, no privilege, no device."""
