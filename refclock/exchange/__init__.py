"""Samples to and from other programs: chrony's SOCK, NTP shared memory, gpsd."""
