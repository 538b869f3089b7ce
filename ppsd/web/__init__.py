"""The web process: what is told over HTTP. No device, no privilege; it asks the others on their control sockets."""
