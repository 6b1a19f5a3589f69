//go:build tools

// Package tools pins h2spec, the conformance test of HTTP/2 servers: `go.mod` and `go.sum` say which one
// and of what. `./tests/run` builds it. All versions are such as Go 1.19, that of Debian 12, can build.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
