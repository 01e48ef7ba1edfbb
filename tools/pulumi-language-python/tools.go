//go:build tools

// Package tools pins the Python language host. Upstream made it a Go module of its own that is never tagged, so the last
// release of the sdk module that still carried it is what a Go proxy can serve; it speaks the same protocol.
// Never compiled into anything: it keeps the requirement in go.mod.
package tools

import _ "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python"
