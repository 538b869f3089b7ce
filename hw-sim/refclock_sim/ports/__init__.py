"""The simulated receiver in real time: ptys, serial lines, pulse files, plugs."""
