package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/moby/spdystream/spdy"
)

// frame is one that a test sends or that came back: syn, reply, data, rst, ping, goaway, headers, settings, window; or
// the bytes of something that is none, in hexadecimal.
type frame struct {
	Type    string            `json:"type"`
	Stream  uint32            `json:"stream,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Text    string            `json:"text,omitempty"`
	Fin     bool              `json:"fin,omitempty"`
	// Status of a rst or goaway, id of a ping.
	Number uint32 `json:"number,omitempty"`
}

// rawConnection is SPDY without anything that keeps to its rules.
type rawConnection struct {
	conn   net.Conn
	reader *bufio.Reader
	framer *spdy.Framer
	// Of the writer: frames go through a buffer, to be cut into pieces.
	outgoing strings.Builder
	response string

	lock     sync.Mutex
	received []frame
}

// maxFrames that are kept: a connection that gets more has no use for them.
const maxFrames = 10_000

func openRaw(req request) (session, error) {
	location, err := url.Parse(req.URL)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", location.Host)
	if err != nil {
		return nil, err
	}
	r := &rawConnection{conn: conn, reader: bufio.NewReader(conn)}
	if r.framer, err = spdy.NewFramer(&r.outgoing, r.reader); err != nil {
		return nil, err
	}
	upgrade, err := http.NewRequest("POST", req.URL, nil)
	if err != nil {
		return nil, err
	}
	upgrade.Header.Set("Connection", "Upgrade")
	upgrade.Header.Set("Upgrade", "SPDY/3.1")
	for _, protocol := range req.Protocols {
		upgrade.Header.Add("X-Stream-Protocol-Version", protocol)
	}
	// What is sent at once comes in the same segment as the request.
	if err := r.encode(req.Frames); err != nil {
		return nil, err
	}
	frames := r.outgoing.String()
	r.outgoing.Reset()
	if err := upgrade.Write(&r.outgoing); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, r.outgoing.String()+frames); err != nil {
		return nil, err
	}
	r.outgoing.Reset()
	response, err := http.ReadResponse(r.reader, upgrade)
	if err != nil {
		return nil, err
	}
	r.response = response.Status
	if response.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(response.Body)
		return nil, fmt.Errorf("%s: %s", response.Status, body)
	}
	return r, nil
}

func (r *rawConnection) run() (map[string]any, error) {
	defer r.conn.Close()
	for {
		read, err := r.framer.ReadFrame()
		if err != nil {
			fields := r.look()
			fields["reason"] = err.Error()
			return fields, nil
		}
		r.lock.Lock()
		if len(r.received) < maxFrames {
			r.received = append(r.received, describe(read))
		}
		r.lock.Unlock()
	}
}

func describe(read spdy.Frame) frame {
	switch f := read.(type) {
	case *spdy.SynReplyFrame:
		return frame{Type: "reply", Stream: uint32(f.StreamId), Fin: f.CFHeader.Flags&spdy.ControlFlagFin != 0}
	case *spdy.DataFrame:
		return frame{Type: "data", Stream: uint32(f.StreamId), Text: string(f.Data), Fin: f.Flags&spdy.DataFlagFin != 0}
	case *spdy.RstStreamFrame:
		return frame{Type: "rst", Stream: uint32(f.StreamId), Number: uint32(f.Status)}
	case *spdy.PingFrame:
		return frame{Type: "ping", Number: f.Id}
	case *spdy.GoAwayFrame:
		return frame{Type: "goaway", Stream: uint32(f.LastGoodStreamId), Number: uint32(f.Status)}
	}
	return frame{Type: fmt.Sprintf("%T", read)}
}

func (r *rawConnection) look() map[string]any {
	r.lock.Lock()
	defer r.lock.Unlock()
	return map[string]any{"response": r.response, "frames": append([]frame{}, r.received...)}
}

// do: send FRAMES, whole or in pieces of so many bytes.
func (r *rawConnection) do(req request) error {
	switch req.Op {
	case "cancel":
		return r.conn.Close()
	case "send":
	default:
		return fmt.Errorf("a raw connection cannot %q", req.Op)
	}
	if err := r.encode(req.Frames); err != nil {
		return err
	}
	rest := r.outgoing.String()
	r.outgoing.Reset()
	for len(rest) > 0 {
		n := len(rest)
		if req.Piece > 0 {
			n = min(n, req.Piece)
			time.Sleep(time.Millisecond) // so that the pieces are segments
		}
		if _, err := io.WriteString(r.conn, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func (r *rawConnection) encode(frames []frame) error {
	for _, f := range frames {
		if f.Type == "bytes" {
			data, err := hex.DecodeString(f.Text)
			if err != nil {
				return err
			}
			r.outgoing.Write(data)
			continue
		}
		encoded, err := f.encode()
		if err != nil {
			return err
		}
		if err := r.framer.WriteFrame(encoded); err != nil {
			return err
		}
	}
	return nil
}

func (f frame) encode() (spdy.Frame, error) {
	id := spdy.StreamId(f.Stream)
	headers := http.Header{}
	for name, value := range f.Headers {
		headers.Set(name, value)
	}
	switch f.Type {
	case "syn":
		syn := &spdy.SynStreamFrame{StreamId: id, Headers: headers}
		if f.Fin {
			syn.CFHeader.Flags = spdy.ControlFlagFin
		}
		return syn, nil
	case "data":
		data := &spdy.DataFrame{StreamId: id, Data: []byte(f.Text)}
		if f.Fin {
			data.Flags = spdy.DataFlagFin
		}
		return data, nil
	case "rst":
		return &spdy.RstStreamFrame{StreamId: id, Status: spdy.RstStreamStatus(f.Number)}, nil
	case "ping":
		return &spdy.PingFrame{Id: f.Number}, nil
	case "headers":
		return &spdy.HeadersFrame{StreamId: id, Headers: headers}, nil
	case "settings":
		return &spdy.SettingsFrame{FlagIdValues: []spdy.SettingsFlagIdValue{{Id: 7, Value: 65536}}}, nil
	case "window":
		return &spdy.WindowUpdateFrame{StreamId: id, DeltaWindowSize: f.Number}, nil
	case "goaway":
		return &spdy.GoAwayFrame{LastGoodStreamId: id, Status: spdy.GoAwayStatus(f.Number)}, nil
	}
	return nil, fmt.Errorf("unknown frame %q", f.Type)
}
