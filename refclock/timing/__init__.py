"""Labels and pulse edges to samples: which second is it, and may it be believed? Pure."""
