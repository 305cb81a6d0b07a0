module pyro.dev/agent

go 1.24
