"""How gates are held and softened: rules, the mode that runs them, records."""
