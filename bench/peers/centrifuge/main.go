// A small server on Centrifugo's library: WebSocket, messages in memory, without accounts.
//
//	centrifuge PORT
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"
)

func main() {
	config := centrifuge.DefaultConfig
	config.LogLevel = centrifuge.LogLevelError
	config.LogHandler = func(entry centrifuge.LogEntry) { log.Print(entry.Message, entry.Fields) }
	node, err := centrifuge.New(config)
	check(err)
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, reply centrifuge.SubscribeCallback) {
			reply(centrifuge.SubscribeReply{}, nil)
		})
		client.OnPublish(func(_ centrifuge.PublishEvent, reply centrifuge.PublishCallback) {
			reply(centrifuge.PublishReply{}, nil)
		})
	})
	check(node.Run())

	http.Handle("/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		// The load generator answers no pings.
		PingInterval: 24 * time.Hour,
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	check(err)
	go func() { check(http.Serve(listener, nil)) }()

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
