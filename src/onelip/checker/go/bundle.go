package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
)

// bundle is a folder with a proof, as far as it has been read.
type bundle struct {
	out        io.Writer
	tensors    map[string]*tensor
	input      []int
	output     []int
	blocks     []block
	last       []linear
	product    *big.Rat // of all bounds and norms, or what the method shows
	method     any
	beforeLast *big.Rat // without the norm of the last map
	maps       int
}

func (b *bundle) say(format string, a ...any) { fmt.Fprintf(b.out, format+"\n", a...) }

func (b *bundle) tensor(v any, what string) *tensor {
	name := text(v, what+": a tensor's name")
	t, ok := b.tensors[name]
	demand(ok, "%s: no tensor %q", what, short(name))
	return t
}

// numbers is a tensor of floating-point numbers.
func (b *bundle) numbers(v any, what string) *tensor {
	t := b.tensor(v, what)
	demand(t.floating(), "%s: a tensor of whole numbers", what)
	return t
}

const longestProof = 1 << 26

// check shows all that a bundle claims, or panics with a refusal.
func check(folder string, out io.Writer) {
	b := &bundle{out: out}
	proof := contents(folder, "proof.json", longestProof)
	f := fields(parseJSON(proof, "proof.json"), "the proof", "format", "version", "level", "about", "files", "input", "network", "bound", "samples")
	demand(text(f["format"], "format") == "onelip proof", "another format")
	integer(f["version"], "version", 1, 1)
	demand(text(f["level"], "level") == "real", "another level than real")
	text(f["about"], "about")
	b.readFiles(folder, f["files"])
	b.input = sizes(f["input"], "input")
	b.readNetwork(f["network"])
	bound := claim(f["bound"], "the bound")
	if b.method == nil {
		demand(atLeast(bound, b.product), "the network: the bound is below the product of its parts")
	} else {
		b.readMethod(b.method, bound)
		b.product = bound
	}
	shown, _ := bound.Float64()
	b.say("the network: constant <= %.9g", shown)
	b.readSamples(f["samples"])
}

// readFiles compares digests, and reads the tensors.
func (b *bundle) readFiles(folder string, v any) {
	files, ok := v.(record)
	demand(ok, "files is not an object")
	for name, d := range files {
		digest := text(d, "a digest")
		demand(name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\\\x00"), "%q is not a file's name", short(name))
		content := contents(folder, name, 1<<40)
		sum := sha256.Sum256(content)
		demand(digest == hex.EncodeToString(sum[:]), "%q has another digest", short(name))
		if name == "tensors.safetensors" {
			b.tensors = readTensors(content)
			allow(timesAsMuch, len(content))
		}
	}
	demand(b.tensors != nil, "no digest of tensors.safetensors")
}

// contents is a regular file, whole.
func contents(folder, name string, most int64) []byte {
	path := filepath.Join(folder, name)
	info, err := os.Stat(path)
	demand(err == nil, "no file %q", short(name))
	demand(info.Mode().IsRegular() && info.Size() <= most, "%q is not a file of a size to read", short(name))
	file, err := os.Open(path)
	demand(err == nil, "%q cannot be read", short(name))
	defer file.Close()
	var content bytes.Buffer
	content.Grow(int(info.Size()) + 1)
	_, err = io.Copy(&content, io.LimitReader(file, info.Size()+1))
	demand(err == nil && int64(content.Len()) <= info.Size(), "%q cannot be read, or grows", short(name))
	return content.Bytes()
}
