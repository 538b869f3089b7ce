"""The appliance: the image's own settings, network, slots and updates around the daemon."""
