// Detect from Go: detect ADDRESS IMAGE MODEL. Prints a line for each object: class, confidence,
// x_min, y_min, x_max, y_max in pixels of the image.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	yolopool "example.com/detect/stubs"
)

const (
	timeout = 10 * time.Second
	pause   = 200 * time.Millisecond // where the pool does not say how long
)

// refusal is what the trailer grpc-status-details-bin says: a google.rpc.Status with an ErrorInfo.
type refusal struct {
	reason    string
	retryable bool
	pause     time.Duration
}

func refusalOf(err error) refusal {
	state := status.Convert(err)
	// Without a word of the pool the connection failed: it may be restarting.
	why := refusal{state.Code().String(), state.Code() == codes.Unavailable, pause}
	for _, detail := range state.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			why.reason = detail.GetReason()
			why.retryable = detail.GetMetadata()["retryable"] == "true"
		case *errdetails.RetryInfo:
			why.pause = detail.GetRetryDelay().AsDuration()
		}
	}
	return why
}

// detect repeats the call while the pool says that it may succeed later, up to the deadline of ctx.
func detect(ctx context.Context, client yolopool.DetectionServiceClient, request *yolopool.DetectRequest) (*yolopool.DetectResponse, error) {
	for {
		answer, err := client.Detect(ctx, request)
		if err == nil {
			return answer, nil
		}
		why := refusalOf(err)
		if !why.retryable {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(why.pause):
		}
	}
}

func run(address, path, model string) error {
	image, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	request := &yolopool.DetectRequest{Model: model, Image: &yolopool.DetectRequest_Encoded{Encoded: image}}
	answer, err := detect(ctx, yolopool.NewDetectionServiceClient(connection), request)
	if err != nil {
		return err
	}
	for _, one := range answer.GetDetections() {
		box := one.GetBox()
		fmt.Printf("%s %.3f %.1f %.1f %.1f %.1f\n", one.GetClassName(), one.GetConfidence(),
			box.GetXMin(), box.GetYMin(), box.GetXMax(), box.GetYMax())
	}
	return nil
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintf(os.Stderr, "error %s: %s\n", refusalOf(err).reason, status.Convert(err).Message())
		os.Exit(1)
	}
}
