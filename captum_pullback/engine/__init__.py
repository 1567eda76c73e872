"""How the gates of a forward pass are held and softened: rules, the mode that runs them, records."""
