package cluster

import (
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// A copy of a stopped server's files is another system when it has another identifier where PostgreSQL keeps it: in pg_control and at the begin
// of each file of the log.

// copySystem fills a folder with what is in another, whose server is stopped, as a system of its own.
func (c *Cluster) copySystem(from, dir string) error {
	if err := c.copyStopped(from, dir); err != nil {
		return err
	}
	id := make([]byte, 8)
	_, _ = crand.Read(id)
	control, err := readControl(dir)
	if err != nil {
		return err
	}
	if !control.rename(binary.NativeEndian.Uint64(id)) {
		return fmt.Errorf("copy of %s: its pg_control has no checksum that is right", from)
	}
	if err := c.writeFile(controlPath(dir), control); err != nil {
		return err
	}
	log, _ := filepath.Glob(filepath.Join(dir, "pg_wal", "0*")) // the pattern is well-formed
	for _, path := range log {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("copy of %s: %w", from, err)
		}
		_, err = f.WriteAt(id, logSystem)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("copy of %s: %w", from, err)
		}
	}
	return nil
}

// copyStopped copies the data folder of a server that has been stopped, with no more of its log than a start needs.
func (c *Cluster) copyStopped(from, dir string) error {
	control, err := readControl(from)
	if err != nil {
		return err
	}
	if !control.stopped() {
		return fmt.Errorf("copy of %s: its server has not been stopped in order", from)
	}
	return c.copyTree(from, dir, control.needs)
}

// System is the node's system identifier, as pg_control_system has it.
func (n *Node) System() (string, error) {
	b, err := readControl(n.dir)
	if err != nil {
		return "", err
	}
	return strconv.FormatInt(int64(binary.NativeEndian.Uint64(b)), 10), nil
}

// control is a pg_control: PostgreSQL's ControlFileData, src/include/catalog/pg_control.h. It begins with the system identifier, and ends with
// the CRC-32C of all before that.
type control []byte

const (
	controlState      = 16 // DBState
	controlCheckpoint = 32 // where the log has the last checkpoint; the same in all versions
	shutdowned        = 1  // DB_SHUTDOWNED
)

func controlPath(dir string) string { return filepath.Join(dir, "global", "pg_control") }

func readControl(dir string) (control, error) {
	b, err := os.ReadFile(controlPath(dir))
	if err == nil && len(b) < controlCheckpoint+8 {
		err = errors.New("pg_control is too short")
	}
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", dir, err)
	}
	return b, nil
}

// stopped says whether the server has ended in order, so that its files are whole without the log.
func (c control) stopped() bool { return binary.NativeEndian.Uint32(c[controlState:]) == shutdowned }

// rename gives it another system identifier. Where it ends is another place in each version, and found by the checksum that is there.
func (c control) rename(id uint64) bool {
	table := crc32.MakeTable(crc32.Castagnoli)
	for end := 8; end+4 <= len(c); end += 4 {
		if binary.NativeEndian.Uint32(c[end:]) == crc32.Checksum(c[:end], table) {
			binary.NativeEndian.PutUint64(c, id)
			binary.NativeEndian.PutUint32(c[end:], crc32.Checksum(c[:end], table))
			return true
		}
	}
	return false
}

// The head of a file of the log: XLogLongPageHeaderData, src/include/access/xlog_internal.h.
const (
	logTimeline = 4
	logAddress  = 8
	logSystem   = 24
	logSize     = 32
	logHead     = 36

	checkpointSpan = 1 << 16 // more than the record of a checkpoint, with the heads of pages that it may span
)

// needs says how much of a file of the log a start of the stopped server reads: nothing of those before the last checkpoint, and of those that
// are kept to be written again, whose head does not say what their name does. Nothing was written after the checkpoint.
func (c control) needs(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() // it is only read
	head := make([]byte, logHead)
	if _, err := io.ReadFull(f, head); err != nil {
		return 0, err
	}
	timeline, address, size := binary.NativeEndian.Uint32(head[logTimeline:]), binary.NativeEndian.Uint64(head[logAddress:]), uint64(binary.NativeEndian.Uint32(head[logSize:]))
	if size == 0 { // nothing is written there yet
		return 0, nil
	}
	name := fmt.Sprintf("%08X%08X%08X", timeline, address>>32, address&0xFFFFFFFF/size)
	end := binary.NativeEndian.Uint64(c[controlCheckpoint:]) + checkpointSpan
	if filepath.Base(path) != name || end-checkpointSpan >= address+size || end < address {
		return 0, nil
	}
	return int64(min(end-address, size)), nil
}
