"""`orders import`: reads an Online Retail CSV and submits its orders to the command service."""
