package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"strings"
)

// serve listens as its arguments say, BEHAVIOUR=ADDRESS:PORT each, until it is killed. It prints "serving" once all of
// them listen.
func serve(arguments []string) {
	behaviours := map[string]func(*net.TCPConn) error{
		"echo": echo, "pour": pour, "digest": digest, "deaf": deaf, "farewell": farewell,
	}
	for _, argument := range arguments {
		name, address, _ := strings.Cut(argument, "=")
		behave := behaviours[name]
		if behave == nil {
			log.Fatalf("unknown behaviour %q", name)
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			log.Fatal(err)
		}
		go accept(listener, behave)
	}
	fmt.Println("serving")
	select {}
}

func accept(listener net.Listener, behave func(*net.TCPConn) error) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close()
			if err := behave(conn.(*net.TCPConn)); err != nil {
				fmt.Println("broken:", err)
			}
		}()
	}
}

// echo sends back what comes, and the end when it comes.
func echo(conn *net.TCPConn) error {
	_, err := io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
	return err
}

// pour reads a line with a number and sends so many bytes.
func pour(conn *net.TCPConn) error {
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	left, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return err
	}
	for block := make([]byte, 256<<10); left > 0; left -= int64(len(block)) {
		block = block[:min(int64(len(block)), left)]
		if _, err := conn.Write(block); err != nil {
			return err
		}
	}
	return nil
}

// digest reads to the end, then says what it read.
func digest(conn *net.TCPConn) error {
	sum := sha256.New()
	n, err := io.Copy(sum, conn)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conn, "%d %x\n", n, sum.Sum(nil))
	return err
}

// deaf never reads; it stays open until its program ends.
func deaf(*net.TCPConn) error {
	select {}
}

// farewell ends its own side at once, and prints how much comes nevertheless.
func farewell(conn *net.TCPConn) error {
	if _, err := io.WriteString(conn, "bye\n"); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, conn)
	fmt.Println("heard", n)
	return err
}
