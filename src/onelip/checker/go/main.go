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
)

const trust = `VALID
Taken on trust: this network runs elsewhere, %s;
samples are what their owner says; Go, and its sums and products of integers, are right.
`

var timesAsMuch = 1

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

// run says what a bundle is, and gives the exit status.
func run(folder string, to io.Writer) (status int) {
	out := bufio.NewWriter(to)
	defer func() {
		if out.Flush() != nil {
			status = 1
		}
	}()
	defer func() {
		switch failure := recover().(type) {
		case nil:
		case refusal:
			status = 1
			fmt.Fprintf(out, "INVALID: %s\n", failure)
		default:
			status = 1
			fmt.Fprintf(out, "INVALID: the checker cannot go on: %.200v\n", failure)
		}
	}()
	l := check(folder, out)
	fmt.Fprintf(out, trust, l.terms())
	return 0
}
