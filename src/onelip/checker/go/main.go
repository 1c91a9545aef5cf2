//go:build !js

// Command onelip-check decides in exact arithmetic whether a bundle of onelip proves what it claims.
//
// It is written from docs/proof-format.md alone and shares nothing with the library.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const trust = `VALID
Taken on trust: this network runs elsewhere, %s;
samples are what their owner says; Go, and its sums and products of integers, are right.
`

func main() {
	flag.Usage = func() { fmt.Fprintln(os.Stderr, "usage: onelip-check [-workers N] [-work N] BUNDLE") }
	flag.IntVar(&workers, "workers", 1, "how many goroutines prove at once")
	flag.IntVar(&timesAsMuch, "work", 1, "how many times as much work as usual is allowed")
	flag.Parse()
	if flag.NArg() != 1 || workers < 1 || workers > 1024 || timesAsMuch < 1 || timesAsMuch > 1<<16 {
		flag.Usage()
		os.Exit(2)
	}
	os.Exit(run(flag.Arg(0), os.Stdout))
}

// run says what the bundle in a folder is, and gives the exit status.
func run(folder string, to io.Writer) (status int) {
	out := bufio.NewWriter(to)
	b, reason := decide(os.DirFS(filepath.Clean(folder)), printer{out})
	if reason != "" {
		status = 1
		fmt.Fprintf(out, "INVALID: %s\n", reason)
	} else {
		fmt.Fprintf(out, trust, b.level.terms())
	}
	if out.Flush() != nil {
		status = 1
	}
	return status
}
