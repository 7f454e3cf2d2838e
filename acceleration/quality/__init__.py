"""How near two pictures or latents are to each other."""
