// A client of the suite in Go: it joins, posts, reads an error and pages a list.
//
//	go run . HOST:PORT SERVICE-CONFIG      beside the stubs
//
// It tells its steps on the standard error, and at the end what it saw as one JSON object on the standard output.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // looks after the health of servers, as the service config says
	"google.golang.org/grpc/status"

	gatewayv1 "example.com/insta/gen/insta/gateway/v1"
)

const (
	password = "correct horse battery staple"
	imageURL = "https://images.example.com/first-light.jpg"
	pageSize = 2
)

// seen is what the client reports. Ids are strings, as in the JSON of every int64.
type seen struct {
	Username string     `json:"username"`
	UserID   string     `json:"user_id"`
	PostID   string     `json:"post_id"`
	Error    failure    `json:"error"`
	Pages    [][]string `json:"pages"`
}

// failure is how a call failed.
type failure struct {
	Code   string   `json:"code"`
	Domain string   `json:"domain"`
	Reason string   `json:"reason"`
	Fields []string `json:"fields"`
}

// bearer sends an access token with a call.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

// RequireTransportSecurity is false because the client speaks to its own machine without TLS.
func (bearer) RequireTransportSecurity() bool { return false }

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: client HOST:PORT SERVICE-CONFIG")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	saw, err := visit(ctx, os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(saw); err != nil {
		log.Fatal(err)
	}
}

func visit(ctx context.Context, address, serviceConfig string) (*seen, error) {
	channel, err := grpc.NewClient(
		address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
	)
	if err != nil {
		return nil, err
	}
	defer channel.Close()

	login, err := join(ctx, gatewayv1.NewAccountServiceClient(channel))
	if err != nil {
		return nil, err
	}
	token := grpc.PerRPCCredentials(bearer(login.GetAccessToken()))
	posts := gatewayv1.NewPostServiceClient(channel)

	post, err := publish(ctx, posts, token)
	if err != nil {
		return nil, err
	}
	failed, err := publishWithoutTitle(ctx, posts, token)
	if err != nil {
		return nil, err
	}
	written := []string{id(post.GetId())}
	for number := 2; number <= 5; number++ {
		request := &gatewayv1.CreatePostRequest{Title: fmt.Sprintf("Light %d", number)}
		created, err := posts.CreatePost(ctx, request, token)
		if err != nil {
			return nil, fmt.Errorf("creating post %d: %w", number, err)
		}
		written = append(written, id(created.GetPost().GetId()))
	}
	pages, err := list(ctx, gatewayv1.NewProfileServiceClient(channel), login.GetAccount().GetId(), token)
	if err != nil {
		return nil, err
	}
	slices.Reverse(written)
	if listed := slices.Concat(pages...); !slices.Equal(listed, written) {
		return nil, fmt.Errorf("listed %v, not the posts newest first: %v", listed, written)
	}
	return &seen{
		Username: login.GetAccount().GetUsername(),
		UserID:   id(login.GetAccount().GetId()),
		PostID:   id(post.GetId()),
		Error:    failed,
		Pages:    pages,
	}, nil
}

// join registers somebody new and logs them in.
func join(ctx context.Context, accounts gatewayv1.AccountServiceClient) (*gatewayv1.LoginResponse, error) {
	username := "go_" + strings.ToLower(rand.Text()[:20])
	registered, err := accounts.Register(ctx, &gatewayv1.RegisterRequest{
		Username:  username,
		Email:     username + "@example.com",
		Password:  password,
		FirstName: "Gopher",
	})
	if err != nil {
		return nil, fmt.Errorf("registering: %w", err)
	}
	login, err := accounts.Login(ctx, &gatewayv1.LoginRequest{Login: username, Password: password})
	if err != nil {
		return nil, fmt.Errorf("logging in: %w", err)
	}
	if login.GetAccount().GetId() != registered.GetAccount().GetId() || login.GetAccount().GetUsername() != username {
		return nil, fmt.Errorf("registered %v, logged in as %v", registered.GetAccount(), login.GetAccount())
	}
	log.Printf("registered and logged in as %s", username)
	return login, nil
}

// publish creates a post with an image.
func publish(
	ctx context.Context, posts gatewayv1.PostServiceClient, token grpc.CallOption,
) (*gatewayv1.Post, error) {
	request := &gatewayv1.CreatePostRequest{Title: "First light", ImageUrls: []string{imageURL}}
	created, err := posts.CreatePost(ctx, request, token)
	if err != nil {
		return nil, fmt.Errorf("creating a post: %w", err)
	}
	read, err := posts.GetPost(ctx, &gatewayv1.GetPostRequest{PostId: created.GetPost().GetId()}, token)
	if err != nil {
		return nil, fmt.Errorf("reading the post: %w", err)
	}
	post := read.GetPost()
	if post.GetTitle() != request.GetTitle() || !slices.Equal(post.GetImageUrls(), request.GetImageUrls()) {
		return nil, fmt.Errorf("posted %v, read %v", request, post)
	}
	log.Printf("posted %s", imageURL)
	return post, nil
}

// publishWithoutTitle makes a mistake, and reads what the suite says of it.
func publishWithoutTitle(
	ctx context.Context, posts gatewayv1.PostServiceClient, token grpc.CallOption,
) (failure, error) {
	_, err := posts.CreatePost(ctx, &gatewayv1.CreatePostRequest{}, token)
	if err == nil {
		return failure{}, errors.New("a post without a title was created")
	}
	answer := status.Convert(err)
	failed := failure{Code: code.Code(answer.Code()).String()}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failed.Domain, failed.Reason = detail.GetDomain(), detail.GetReason()
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				failed.Fields = append(failed.Fields, violation.GetField())
			}
		}
	}
	log.Printf("refused: %s, %s in %v", failed.Code, failed.Reason, failed.Fields)
	return failed, nil
}

// list pages somebody's posts to the end. Returns their ids, page by page.
func list(
	ctx context.Context, profiles gatewayv1.ProfileServiceClient, userID int64, token grpc.CallOption,
) ([][]string, error) {
	request := &gatewayv1.ListProfilePostsRequest{UserId: userID, PageSize: pageSize}
	known := map[string]bool{}
	var pages [][]string
	for {
		answer, err := profiles.ListProfilePosts(ctx, request, token)
		if err != nil {
			return nil, fmt.Errorf("listing page %d: %w", len(pages)+1, err)
		}
		var page []string
		for _, post := range answer.GetPosts() {
			postID := id(post.GetId())
			if known[postID] {
				return nil, fmt.Errorf("post %s is listed twice", postID)
			}
			known[postID] = true
			page = append(page, postID)
		}
		pages = append(pages, page)
		if request.PageToken = answer.GetNextPageToken(); request.PageToken == "" {
			log.Printf("listed %d posts in %d pages", len(known), len(pages))
			return pages, nil
		}
	}
}

func id(value int64) string { return strconv.FormatInt(value, 10) }
