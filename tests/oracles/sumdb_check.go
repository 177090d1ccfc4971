// Reads a Countermark log with Go's own sumdb/note and sumdb/tlog, which share no line with ours.
//
//	sumdb_check <vkey> <log directory>
//
// It opens <directory>/checkpoint, believes the tiles only as TileHashReader does, checks every entry of every
// bundle against its leaf, and proves and checks inclusion and consistency at a sample of places. It prints
// the proofs it made (for the test to compare with ours) and ends with an error at the first thing amiss.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// tiles maps sumdb's tile/8/L/N to the tile/L/N of C2SP.
type tiles struct{ dir string }

func (tiles) Height() int { return 8 }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range wanted {
		path := "tile/" + strings.TrimPrefix(tile.Path(), "tile/8/")
		data, err := os.ReadFile(filepath.Join(t.dir, path))
		if err != nil {
			return nil, err
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s has %d bytes", path, len(data))
		}
		all = append(all, data)
	}
	return all, nil
}

func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func main() {
	if err := check(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
}

func check(vkey, dir string) error {
	tree, err := openCheckpoint(vkey, dir)
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(tree, tiles{dir})
	if err := checkEntries(dir, tree.N, reader); err != nil {
		return err
	}
	for _, n := range sample(tree.N) {
		leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, n)})
		if err != nil {
			return err
		}
		record, err := tlog.ProveRecord(tree.N, n, reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(record, tree.N, tree.Hash, n, leaf[0]); err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
		older := n + 1
		root, err := tlog.TreeHash(older, reader)
		if err != nil {
			return err
		}
		prefix, err := tlog.ProveTree(tree.N, older, reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(prefix, tree.N, tree.Hash, older, root); err != nil {
			return fmt.Errorf("tree %d: %w", older, err)
		}
		fmt.Println("record", n, hex(record))
		fmt.Println("tree", older, hex(prefix))
	}
	return nil
}

func openCheckpoint(vkey, dir string) (tree tlog.Tree, err error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tree, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return tree, err
	}
	opened, err := note.Open(raw, note.VerifierList(verifier))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return tree, errors.New("not a checkpoint of this origin")
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

// checkEntries reads every leaf hash, and so every level-0 tile and all tiles above, and every entry bundle.
func checkEntries(dir string, size int64, reader tlog.HashReader) error {
	for first := int64(0); first < size; first += 256 {
		width := min(256, size-first)
		indexes := make([]int64, width)
		for i := range indexes {
			indexes[i] = tlog.StoredHashIndex(0, first+int64(i))
		}
		leaves, err := reader.ReadHashes(indexes)
		if err != nil {
			return err
		}
		path := tlog.Tile{H: 8, L: 0, N: first / 256, W: int(width)}.Path()
		bundle, err := os.ReadFile(filepath.Join(dir, "tile/entries", strings.TrimPrefix(path, "tile/8/0/")))
		if err != nil {
			return err
		}
		for i, leaf := range leaves {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return fmt.Errorf("the bundle at %d is short", first)
			}
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			if tlog.RecordHash(bundle[2:end]) != leaf {
				return fmt.Errorf("entry %d is not in the tree", first+int64(i))
			}
			bundle = bundle[end:]
		}
		if len(bundle) != 0 {
			return fmt.Errorf("the bundle at %d is long", first)
		}
	}
	return nil
}

// sample is the first and last places, those around tile boundaries, and some in between.
func sample(size int64) []int64 {
	var places []int64
	for n := int64(0); n < size; n++ {
		edge := n < 3 || n >= size-3 || n%65536 < 2 || n%65536 > 65533
		near := n < 1024 && (n%256 < 2 || n%256 > 253)
		if edge || near || n%997 == 0 {
			places = append(places, n)
		}
	}
	return places
}

func hex(hashes []tlog.Hash) string {
	var words []string
	for _, hash := range hashes {
		words = append(words, fmt.Sprintf("%x", hash[:]))
	}
	return strings.Join(words, " ")
}
