"""The engine: machines from their record to their removal, on whatever driver works here."""
