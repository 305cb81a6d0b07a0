"""The command line: one file per verb, which parses, calls the SDK and renders."""
