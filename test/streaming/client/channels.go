package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Numbers of the channels of a remote command.
const (
	channelStdin = iota
	channelStdout
	channelStderr
	channelError
	channelResize
	channelClose = 255
)

// channels is a WebSocket with the number of a channel before every message, in any of its forms.
type channels struct {
	conn     *websocket.Conn
	encoded  bool
	protocol string
	write    sync.Mutex
}

func dialChannels(req request) (*channels, error) {
	dialer := websocket.Dialer{Subprotocols: req.Protocols, ReadBufferSize: 33 << 10, WriteBufferSize: 33 << 10}
	conn, response, err := dialer.Dial(strings.Replace(req.URL, "http", "ws", 1), nil)
	if err != nil {
		if response != nil {
			err = fmt.Errorf("%w (%s)", err, response.Status)
		}
		return nil, err
	}
	protocol := conn.Subprotocol()
	return &channels{conn: conn, protocol: protocol, encoded: strings.Contains(protocol, "base64")}, nil
}

func (c *channels) send(channel byte, data []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	if c.encoded {
		text := append([]byte{'0' + channel}, base64.StdEncoding.EncodeToString(data)...)
		return c.conn.WriteMessage(websocket.TextMessage, text)
	}
	return c.conn.WriteMessage(websocket.BinaryMessage, append([]byte{channel}, data...))
}

type channelWriter struct {
	*channels
	channel byte
}

func (w channelWriter) Write(p []byte) (int, error) { return len(p), w.send(w.channel, p) }

func (c *channels) receive() (byte, []byte, error) {
	kind, data, err := c.conn.ReadMessage()
	switch {
	case err != nil:
		return 0, nil, err
	case len(data) == 0:
		return 0, nil, errors.New("a message without a channel")
	case !c.encoded && kind == websocket.BinaryMessage:
		return data[0], data[1:], nil
	case c.encoded && kind == websocket.TextMessage:
		text, err := base64.StdEncoding.DecodeString(string(data[1:]))
		return data[0] - '0', text, err
	}
	return 0, nil, fmt.Errorf("a message of the wrong kind, %d", kind)
}

// closeCode is the one of the close frame; 1006 for a connection that ended without.
func closeCode(err error) int {
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		return closed.Code
	}
	return websocket.CloseAbnormalClosure
}

// channelExec is an exec or attach over bare channels.
type channelExec struct {
	*channels
	streams streams
	lock    sync.Mutex
	first   string
	status  []byte
	pongs   []int64
}

func openChannels(req request) (session, error) {
	c, err := dialChannels(req)
	if err != nil {
		return nil, err
	}
	e := &channelExec{channels: c, streams: newStreams(req)}
	c.conn.SetPongHandler(func(string) error {
		e.lock.Lock()
		defer e.lock.Unlock()
		// How much came before it.
		e.pongs = append(e.pongs, e.streams.output.look()["bytes"].(int64))
		return nil
	})
	return e, nil
}

func (e *channelExec) run() (map[string]any, error) {
	defer e.conn.Close()
	if e.streams.input != nil {
		go func() {
			_, err := io.Copy(channelWriter{e.channels, channelStdin}, e.streams.input)
			if err == nil && e.protocol == "v5.channel.k8s.io" {
				_ = e.send(channelClose, []byte{channelStdin}) // the reader says if the connection has ended
			}
		}()
	}
	for {
		channel, data, err := e.receive()
		if err != nil {
			fields := e.look()
			fields["closeCode"] = closeCode(err)
			return fields, nil
		}
		e.take(channel, data)
	}
}

func (e *channelExec) take(channel byte, data []byte) {
	e.lock.Lock()
	if e.first == "" {
		e.first = fmt.Sprintf("%d:%s", channel, data)
	}
	if channel == channelError {
		e.status = append(e.status, data...)
	}
	e.lock.Unlock()
	switch channel {
	case channelStdout:
		_, _ = e.streams.output.Write(data)
	case channelStderr:
		_, _ = e.streams.errors.Write(data)
	}
}

func (e *channelExec) look() map[string]any {
	fields := e.streams.look()
	e.lock.Lock()
	defer e.lock.Unlock()
	fields["protocol"] = e.protocol
	fields["firstMessage"] = e.first
	fields["status"] = string(e.status)
	fields["pongs"] = append([]int64{}, e.pongs...)
	return fields
}

func (e *channelExec) do(req request) error {
	switch req.Op {
	case "resize":
		size, err := json.Marshal(map[string]uint16{"Width": req.Width, "Height": req.Height})
		if err != nil {
			return err
		}
		return e.send(channelResize, size)
	case "ping":
		return e.conn.WriteControl(websocket.PingMessage, []byte(req.Text), time.Now().Add(time.Minute))
	case "cancel":
		return e.conn.Close()
	}
	return e.streams.do(req)
}
