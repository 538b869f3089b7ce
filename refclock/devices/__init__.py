"""Hardware opened: serial ports, pulse devices, control lines."""
