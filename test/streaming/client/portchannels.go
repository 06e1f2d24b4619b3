package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// portChannels is a forward over a bare WebSocket: for the port at index i, channel 2i is data and 2i+1 an error.
type portChannels struct {
	*channels
	ports []int
	// What came on each channel, the port's number first.
	pipes []*io.PipeReader
	ends  []*io.PipeWriter
}

func openPortChannels(req request) (session, error) {
	c, err := dialChannels(req)
	if err != nil {
		return nil, err
	}
	p := &portChannels{channels: c, ports: req.Ports}
	for range 2 * len(req.Ports) {
		reader, writer := io.Pipe()
		p.pipes = append(p.pipes, reader)
		p.ends = append(p.ends, writer)
	}
	return p, nil
}

func (p *portChannels) run() (map[string]any, error) {
	defer p.conn.Close()
	for {
		channel, data, err := p.receive()
		if err != nil {
			for _, end := range p.ends {
				_ = end.Close()
			}
			return map[string]any{"closeCode": closeCode(err), "protocol": p.protocol}, nil
		}
		if int(channel) >= len(p.ends) {
			return map[string]any{}, fmt.Errorf("a message on channel %d", channel)
		}
		if _, err := p.ends[channel].Write(data); err != nil {
			return map[string]any{}, err
		}
	}
}

func (p *portChannels) look() map[string]any { return map[string]any{"protocol": p.protocol} }

func (p *portChannels) do(req request) error {
	if req.Op != "cancel" {
		return fmt.Errorf("a forward cannot %q", req.Op)
	}
	return p.conn.Close()
}

// connect uses the one connection that a port has. Channels have no half-close, so it ends with the WebSocket.
func (p *portChannels) connect(port int, streams streams) (session, error) {
	index := slices.Index(p.ports, port)
	if index < 0 {
		return nil, fmt.Errorf("port %d is not forwarded", port)
	}
	for _, pipe := range p.pipes[2*index : 2*index+2] {
		var number uint16
		if err := binary.Read(pipe, binary.LittleEndian, &number); err != nil {
			return nil, err
		}
		if int(number) != port {
			return nil, fmt.Errorf("the first message names port %d, not %d", number, port)
		}
	}
	return &connection{
		streams: streams,
		data: struct {
			io.Reader
			io.Writer
		}{p.pipes[2*index], channelWriter{p.channels, byte(2 * index)}},
		failure: p.pipes[2*index+1],
		finish:  func() error { return nil },
		abort:   p.conn.Close,
		discard: func() error { return nil },
	}, nil
}
