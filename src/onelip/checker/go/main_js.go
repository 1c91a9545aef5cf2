package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall/js"
	"time"
)

// host is what the worker of the page gives: files and how to read them, and tell, which takes what is shown.
var host = js.Global().Get("onelip")

func main() {
	timesAsMuch = host.Get("work").Int()
	b, reason := decidePage()
	if reason != "" {
		host.Call("tell", "invalid", reason)
		return
	}
	host.Call("tell", "bound", decimal(b.bound, true), tuple(b.input), tuple(b.output), b.bound.RatString())
	if n := len(b.radii); n > 0 {
		low, high, above := b.radii[0], b.radii[0], 0
		predicted, radii := make([]any, n), make([]any, n) // exact, for a page that compares them with its own
		for i, r := range b.radii {
			low, high, above = smaller(low, r), larger(high, r), above+r.Sign()
			predicted[i], radii[i] = b.predicted[i], r.RatString()
		}
		host.Call("tell", "samples", n, above, decimal(low, false), decimal(high, false), predicted, radii)
	}
	host.Call("tell", "valid", b.level.terms(), b.level == nil)
}

// decidePage is decide, of the files or of the zip that the page has.
func decidePage() (b *bundle, reason string) {
	defer func() {
		if failure := recover(); failure != nil {
			reason = fmt.Sprintf("%.200v", failure)
		}
	}()
	names := host.Get("names")
	given := blobs{}
	for i := 0; i < names.Length(); i++ {
		name := names.Index(i).String()
		_, twice := given[name]
		demand(!twice, "%q stands twice", short(name))
		given[name] = blob{name, i, int64(host.Get("sizes").Index(i).Float())}
	}
	if !host.Get("zip").Bool() {
		return decide(given, teller{})
	}
	for _, f := range given {
		files := openArchive(f, f.size)
		for name := range files {
			host.Call("tell", "inside", name)
		}
		return decide(files, teller{})
	}
	return nil, "no file"
}

// teller is a listener that hands on to the page.
type teller struct{}

func (teller) says(line string) { host.Call("tell", "line", line) }
func (teller) begins(what string, done, of int) {
	host.Call("tell", "begins", what, done, of)
}
func (teller) read(name string, size int, digest [sha256.Size]byte) {
	host.Call("tell", "file", name, size, hex.EncodeToString(digest[:]))
}

// blobs are files of a folder that the page was given.
type blobs map[string]blob

func (b blobs) Open(name string) (fs.File, error) {
	f, there := b[name]
	if !there {
		return nil, fs.ErrNotExist
	}
	return openBlob{io.NewSectionReader(f, 0, f.size), f}, nil
}

// blob is one of them, read piece by piece.
type blob struct {
	name  string
	index int
	size  int64
}

const piece = 1 << 20

func (f blob) ReadAt(p []byte, from int64) (int, error) {
	n := 0
	for n < len(p) && from+int64(n) < f.size {
		many := least(len(p)-n, piece)
		got := host.Call("read", f.index, float64(from+int64(n)), many)
		if got.IsNull() {
			return n, errors.New("the browser cannot read it")
		}
		length := js.CopyBytesToGo(p[n:], got)
		if length == 0 {
			break
		}
		n += length
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f blob) Name() string       { return f.name }
func (f blob) Size() int64        { return f.size }
func (f blob) Mode() fs.FileMode  { return 0o444 }
func (f blob) ModTime() time.Time { return time.Time{} }
func (f blob) IsDir() bool        { return false }
func (f blob) Sys() any           { return nil }

type openBlob struct {
	*io.SectionReader
	info blob
}

func (f openBlob) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f openBlob) Close() error               { return nil }
