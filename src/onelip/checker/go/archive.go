package main

import (
	"archive/zip"
	"io"
	"io/fs"
	"sort"
	"strings"
	"unicode/utf8"
)

const (
	mostPacked      = 1000
	largestArchive  = 1 << 29 // bytes of all files of a zip together
	mostTimesPacked = 1100    // what a byte of deflate becomes at most, and some more
)

// archive is the files of a bundle in a zip, by name: those beside its one proof.json.
type archive map[string]*zip.File

// openArchive refuses a zip that two programs could unpack to different files, or that is large when unpacked.
func openArchive(data io.ReaderAt, size int64) archive {
	z, err := zip.NewReader(data, size)
	demand(err == nil, "the zip cannot be read")
	demand(len(z.File) <= mostPacked, "the zip has more than %d entries", mostPacked)
	total, roots := uint64(0), []string{}
	seen, folders, places := map[string]bool{}, map[string]bool{}, [][2]int64{}
	for _, f := range z.File {
		name, isFolder := strings.TrimSuffix(f.Name, "/"), strings.HasSuffix(f.Name, "/")
		demand(utf8.ValidString(name) && len(name) <= 1024 && fs.ValidPath(name) && name != "." && !strings.ContainsAny(name, "\\:\x00"), "the zip: %q is not a path inside it", short(name))
		folded := strings.ToLower(name)
		demand(!seen[folded], "the zip: %q stands twice", short(name))
		seen[folded] = true
		mode := f.Mode()
		demand(mode.IsRegular() && !isFolder || mode.IsDir() && isFolder, "the zip: %q is not a file", short(name))
		demand(f.Flags&1 == 0, "the zip: %q is encrypted", short(name))
		demand(f.Method == zip.Store || f.Method == zip.Deflate, "the zip: %q is packed in an unknown way", short(name))
		packed, unpacked := f.CompressedSize64, f.UncompressedSize64
		demand(unpacked <= largestArchive && packed <= uint64(size), "the zip: %q is too large", short(name))
		demand(unpacked <= packed*mostTimesPacked && (f.Method == zip.Deflate || packed == unpacked), "the zip: %q has a size that its bytes cannot have", short(name))
		total += unpacked
		demand(total <= largestArchive, "the zip is too large when unpacked")
		from, err := f.DataOffset()
		demand(err == nil, "the zip cannot be read")
		places = append(places, [2]int64{from, from + int64(packed)})
		parent, base := "", name
		if slash := strings.LastIndexByte(name, '/'); slash >= 0 {
			parent, base = name[:slash+1], name[slash+1:]
			for i, c := range folded[:slash] {
				if c == '/' {
					folders[folded[:i]] = true
				}
			}
			folders[folded[:slash]] = true
		}
		if base == "proof.json" && strings.Count(name, "/") <= 1 && !isFolder {
			roots = append(roots, parent)
		}
	}
	sort.Slice(places, func(i, j int) bool { return places[i][0] < places[j][0] })
	for i := 1; i < len(places); i++ {
		demand(places[i-1][1] <= places[i][0], "the zip: its entries overlap")
	}
	demand(len(roots) > 0, `the zip: no file "proof.json" in it, or in one folder of it`)
	demand(len(roots) == 1, `the zip: more than one "proof.json"`)
	a := archive{}
	for _, f := range z.File {
		name := f.Name
		demand(strings.HasSuffix(name, "/") || !folders[strings.ToLower(name)], "the zip: %q is a file and a folder", short(name))
		if rest := strings.TrimPrefix(name, roots[0]); rest != name || roots[0] == "" {
			if rest != "" && !strings.Contains(rest, "/") {
				a[rest] = f
			}
		}
	}
	return a
}

// Open gives a file, whose bytes are those of the declared number and digest, or an error.
func (a archive) Open(name string) (fs.File, error) {
	f, there := a[name]
	if !there {
		return nil, fs.ErrNotExist
	}
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	return packedFile{r, f.FileInfo()}, nil
}

type packedFile struct {
	io.ReadCloser
	info fs.FileInfo
}

func (f packedFile) Stat() (fs.FileInfo, error) { return f.info, nil }
