"""Who may call, and what they pay: users, keys, prepaid credit."""
