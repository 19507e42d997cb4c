// A proxy's side of gRPC v2 in grpc-go: `ask` says events and prints what is answered, `load` asks as fast as it
// is answered and prints what that took. Messages are those of the agent's own description of them (-messages).
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"sort"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

var (
	address  = flag.String("address", "127.0.0.1:50051", "the agent's")
	pkg      = flag.String("package", "zentinel.agent.v2", "of the service")
	messages = flag.String("messages", "", "file with the FileDescriptorProto")
	ca       = flag.String("ca", "", "PEM file: TLS, and whom to trust")
	cert     = flag.String("cert", "", "PEM file of a certificate of our own")
	key      = flag.String("key", "", "PEM file of its key")
	event    = flag.String("event", "", "load: file with a ProxyToAgent")
	streams  = flag.Int("streams", 4, "load: at once")
	inFlight = flag.Int("in-flight", 1, "load: events under way on each stream")
	seconds  = flag.Float64("seconds", 2, "load: for so long")
)

// raw takes messages as the bytes that they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

// What is given is used again for the next message.
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append((*v.(*[]byte))[:0], data...)
	return nil
}
func (raw) Name() string { return "proto" }

// A ProxyToAgent: handshake, of version 2.
var handshake = []byte{0x0a, 0x03, 0x0a, 0x01, 0x02}

var bidirectional = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}

func method(name string) string { return fmt.Sprintf("/%s.AgentServiceV2/%s", *pkg, name) }

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func connect() *grpc.ClientConn {
	trust := insecure.NewCredentials()
	if *ca != "" {
		config := &tls.Config{RootCAs: x509.NewCertPool()}
		if !config.RootCAs.AppendCertsFromPEM(must(os.ReadFile(*ca))) {
			log.Fatalf("%s has no certificate", *ca)
		}
		if *cert != "" {
			config.Certificates = []tls.Certificate{must(tls.LoadX509KeyPair(*cert, *key))}
		}
		trust = credentials.NewTLS(config)
	}
	return must(grpc.NewClient(*address, grpc.WithTransportCredentials(trust)))
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	switch flag.Arg(0) {
	case "ask":
		ask()
	case "load":
		load()
	default:
		log.Fatal("ask or load?")
	}
}

// ask says each line of stdin, a ProxyToAgent as JSON, on one stream, and prints each AgentToProxy as it comes.
func ask() {
	var described descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(must(os.ReadFile(*messages)), &described); err != nil {
		log.Fatal(err)
	}
	kinds := must(protodesc.NewFile(&described, nil)).Messages()
	kind := func(name protoreflect.Name) *dynamicpb.Message { return dynamicpb.NewMessage(kinds.ByName(name)) }

	connection := connect()
	defer connection.Close()
	stream := must(connection.NewStream(context.Background(), bidirectional, method("ProcessStream")))
	must(stream.Header()) // as proxies do, which say nothing before they have it
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		lines.Buffer(nil, 32<<20)
		for lines.Scan() {
			message := kind("ProxyToAgent")
			if err := protojson.Unmarshal(lines.Bytes(), message); err != nil {
				log.Fatal(err)
			}
			if err := stream.SendMsg(message); err != nil {
				return // RecvMsg says why
			}
		}
		_ = stream.CloseSend()
	}()
	for {
		message := kind("AgentToProxy")
		if err := stream.RecvMsg(message); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(must(protojson.Marshal(message))))
	}
}

type taken struct {
	Events int     `json:"events"`
	P50us  float64 `json:"p50_us"`
	P99us  float64 `json:"p99_us"`
	Busy   float64 `json:"client_busy"`
}

// load prints events, times and the client's share of one processor. Answers are taken to come in order.
func load() {
	data := must(os.ReadFile(*event))
	until := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
	began, before := time.Now(), cpu()
	var all sync.WaitGroup
	times := make([][]time.Duration, *streams)
	for number := range *streams {
		all.Go(func() {
			// Each has a connection of its own, as a proxy's have.
			connection := connect()
			defer connection.Close()
			times[number] = one(connection, data, until)
		})
	}
	all.Wait()
	var sorted []time.Duration
	for _, some := range times {
		sorted = append(sorted, some...)
	}
	sort.Slice(sorted, func(a, b int) bool { return sorted[a] < sorted[b] })
	at := func(share float64) float64 {
		return float64(sorted[int(share*float64(len(sorted)-1))].Nanoseconds()) / 1e3
	}
	result := taken{len(sorted), at(0.5), at(0.99), (cpu() - before).Seconds() / time.Since(began).Seconds()}
	fmt.Println(string(must(json.Marshal(result))))
}

// one asks on one stream until then, and gives how long each answer took.
func one(connection *grpc.ClientConn, data []byte, until time.Time) []time.Duration {
	patience, cancel := context.WithDeadline(context.Background(), until.Add(30*time.Second))
	defer cancel()
	stream := must(connection.NewStream(patience, bidirectional, method("ProcessStream"), grpc.ForceCodec(raw{})))
	must(stream.Header())
	var answer []byte
	if err := errors.Join(stream.SendMsg(&handshake), stream.RecvMsg(&answer)); err != nil {
		log.Fatal(err)
	}
	said := make(chan time.Time, *inFlight)
	say := func() {
		said <- time.Now()
		if err := stream.SendMsg(&data); err != nil {
			log.Fatal(err)
		}
	}
	for range *inFlight {
		say()
	}
	var took []time.Duration
	for {
		if err := stream.RecvMsg(&answer); err != nil {
			log.Fatal(err)
		}
		if len(answer) == 0 {
			log.Fatal("an empty answer")
		}
		took = append(took, time.Since(<-said))
		if time.Now().After(until) {
			return took
		}
		say()
	}
}

func cpu() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
