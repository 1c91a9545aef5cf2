package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"strings"
)

var timesAsMuch = 1

// listener is told how a check goes on.
type listener interface {
	// says takes a line that has been shown.
	says(line string)
	// begins takes what is going to be shown, and how many of all maps, or of all samples, are done.
	begins(what string, done, of int)
	// read takes a file of the bundle, with its digest, whatever is claimed of that.
	read(name string, size int, digest [sha256.Size]byte)
}

// printer is a listener that prints what was shown.
type printer struct{ io.Writer }

func (p printer) says(line string)                    { fmt.Fprintln(p, line) }
func (p printer) begins(string, int, int)             {}
func (p printer) read(string, int, [sha256.Size]byte) {}

// decide gives a bundle of which all is shown, or the reason why it is INVALID.
func decide(folder fs.FS, to listener) (b *bundle, reason string) {
	defer func() {
		switch failure := recover().(type) {
		case nil:
		case refusal:
			reason = string(failure)
		default:
			reason = fmt.Sprintf("the checker cannot go on: %.200v", failure)
		}
	}()
	b = &bundle{to: to}
	b.check(folder)
	return b, ""
}

// bundle is a folder with a proof, as far as it has been read.
type bundle struct {
	to         listener
	level      *level // nil for real
	tensors    map[string]*tensor
	input      []int
	output     []int
	blocks     []block
	last       []linear
	product    *big.Rat // of all bounds and norms, or what the method shows
	method     any
	beforeLast *big.Rat // without the norm of the last map
	maps, all  int      // that have been read, and of the whole network
	bound      *big.Rat
	radii      []*big.Rat // of the samples
	predicted  []int      // of the samples
}

func (b *bundle) say(format string, a ...any) { b.to.says(fmt.Sprintf(format, a...)) }

func (b *bundle) tensor(v any, what string) *tensor {
	name := text(v, what+": a tensor's name")
	t, ok := b.tensors[name]
	demand(ok, "%s: no tensor %q", what, short(name))
	return t
}

const longestProof = 1 << 26

// check shows all that a bundle claims, or panics with a refusal.
func (b *bundle) check(folder fs.FS) {
	proof := contents(folder, "proof.json", longestProof)
	b.to.read("proof.json", len(proof), sha256.Sum256(proof))
	f := fields(parseJSON(proof, "proof.json"), "the proof", "format", "version", "level", "about", "files", "input", "network", "bound", "samples")
	demand(text(f["format"], "format") == "onelip proof", "another format")
	integer(f["version"], "version", 1, 1)
	b.level = readLevel(f["level"])
	text(f["about"], "about")
	b.readFiles(folder, f["files"])
	b.input = sizes(f["input"], "input")
	b.all = mapsIn(f["network"])
	b.readNetwork(f["network"])
	bound := claim(f["bound"], "the bound")
	if b.method == nil {
		demand(atLeast(bound, b.product), "the network: the bound is below the product of its parts")
	} else {
		b.to.begins("the method", b.maps, b.all)
		b.readMethod(b.method, bound)
		b.product = bound
	}
	shown, _ := bound.Float64()
	b.say("the network: constant <= %.9g", shown)
	b.bound = bound
	b.readSamples(f["samples"])
}

// readFiles compares digests, and reads the tensors.
func (b *bundle) readFiles(folder fs.FS, v any) {
	files, ok := v.(record)
	demand(ok, "files is not an object")
	for name, d := range files {
		digest := text(d, "a digest")
		demand(name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\\\x00"), "%q is not a file's name", short(name))
		content := contents(folder, name, 1<<40)
		sum := sha256.Sum256(content)
		b.to.read(name, len(content), sum)
		demand(digest == hex.EncodeToString(sum[:]), "%q has another digest", short(name))
		if name == "tensors.safetensors" {
			b.tensors = readTensors(content)
			allow(timesAsMuch, len(content))
		}
	}
	demand(b.tensors != nil, "no digest of tensors.safetensors")
	b.demandNumbers()
}

// contents is a regular file, whole.
func contents(folder fs.FS, name string, most int64) []byte {
	info, err := fs.Stat(folder, name)
	demand(err == nil, "no file %q", short(name))
	demand(info.Mode().IsRegular() && info.Size() <= most, "%q is not a file of a size to read", short(name))
	file, err := folder.Open(name)
	demand(err == nil, "%q cannot be read", short(name))
	defer file.Close()
	var content bytes.Buffer
	content.Grow(int(info.Size()) + bytes.MinRead)
	_, err = io.Copy(&content, io.LimitReader(file, info.Size()+1))
	demand(err == nil && int64(content.Len()) <= info.Size(), "%q cannot be read, or grows", short(name))
	return content.Bytes()
}
