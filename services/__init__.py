"""The services behind the gateway. They share contracts, and no code but the chassis."""
