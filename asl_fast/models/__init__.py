"""The networks, and the recipes and optimizers that train them."""
