//go:build tools

// Package tools pins the Pulumi command line, which is built from its published Go module on machines that cannot reach
// its release downloads. Never compiled into anything: it keeps the requirement in go.mod.
package tools

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
