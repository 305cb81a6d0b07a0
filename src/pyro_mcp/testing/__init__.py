"""Tools and fakes for tests, shipped for those who build on pyro."""
