/**
 * A client of the suite in TypeScript: it joins, posts, reads an error and pages a list.
 *
 *     npx tsc && node out/client.js HOST:PORT SERVICE-CONFIG      beside the stubs, with node_modules
 *
 * It tells its steps on the standard error, and at the end what it saw as one JSON object on the standard output.
 */
import { deepStrictEqual, ok, strictEqual } from "node:assert";
import { randomBytes } from "node:crypto";

import {
  type CallOptions,
  type ClientUnaryCall,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { BadRequest, ErrorInfo } from "nice-grpc-error-details";
import { Status } from "nice-grpc-error-details/lib/proto/google/rpc/status";

import { type Account, AccountServiceClient, LoginRequest, RegisterRequest } from "./insta/gateway/v1/accounts";
import { CreatePostRequest, type Post, PostServiceClient } from "./insta/gateway/v1/posts";
import { ProfileServiceClient } from "./insta/gateway/v1/profiles";

const PASSWORD = "correct horse battery staple";
const IMAGE_URL = "https://images.example.com/first-light.jpg";
const PAGE_SIZE = 2;
const TIMEOUT_MILLISECONDS = 30_000;

/** How a call failed. */
interface Failure {
  code: string;
  domain: string;
  reason: string;
  fields: string[];
}

/** A unary method of a grpc-js client. */
type Method<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: CallOptions,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall;

/** Calls a method, with an access token if there is one. */
function call<Request, Response>(method: Method<Request, Response>, request: Request, token = ""): Promise<Response> {
  const metadata = new Metadata();
  if (token) {
    metadata.set("authorization", `Bearer ${token}`);
  }
  return new Promise((resolve, reject) => {
    method(request, metadata, { deadline: Date.now() + TIMEOUT_MILLISECONDS }, (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}

/** Somebody who is logged in. */
interface Session {
  token: string;
  account: Account;
}

/** Registers somebody new and logs them in. */
async function join(accounts: AccountServiceClient): Promise<Session> {
  const username = `ts_${randomBytes(10).toString("hex")}`;
  const wanted = { username, email: `${username}@example.com`, password: PASSWORD, firstName: "Tess" };
  const registered = await call(accounts.register.bind(accounts), RegisterRequest.create(wanted));
  const credentials = LoginRequest.create({ login: username, password: PASSWORD });
  const { account, accessToken } = await call(accounts.login.bind(accounts), credentials);
  ok(account);
  strictEqual(account.id, registered.account?.id);
  strictEqual(account.username, username);
  console.error(`registered and logged in as ${username}`);
  return { token: accessToken, account };
}

/** Creates a post. */
async function publish(posts: PostServiceClient, token: string, fields: Partial<CreatePostRequest>): Promise<Post> {
  const { post } = await call(posts.createPost.bind(posts), CreatePostRequest.create(fields), token);
  ok(post);
  return post;
}

/** How a call failed, from the status and the details that come with it. */
async function failure(failing: Promise<unknown>): Promise<Failure> {
  const error = await failing.then(
    () => Promise.reject(new Error("the call succeeded")),
    (reason: ServiceError) => reason,
  );
  const failed: Failure = { code: status[error.code], domain: "", reason: "", fields: [] };
  const [packed] = error.metadata.get("grpc-status-details-bin");
  for (const detail of packed ? Status.decode(packed as Buffer).details : []) {
    if (detail.typeUrl === `type.googleapis.com/${ErrorInfo.$type}`) {
      const info = ErrorInfo.decode(detail.value);
      failed.domain = info.domain;
      failed.reason = info.reason;
    } else if (detail.typeUrl === `type.googleapis.com/${BadRequest.$type}`) {
      failed.fields = BadRequest.decode(detail.value).fieldViolations.map((violation) => violation.field);
    }
  }
  return failed;
}

/** Pages somebody's posts to the end. Resolves to their ids, page by page. */
async function list(profiles: ProfileServiceClient, userId: string, token: string): Promise<string[][]> {
  const pages: string[][] = [];
  let pageToken = "";
  do {
    const request = { userId, pageSize: PAGE_SIZE, pageToken };
    const page = await call(profiles.listProfilePosts.bind(profiles), request, token);
    pages.push(page.posts.map((post) => post.id));
    pageToken = page.nextPageToken;
  } while (pageToken);
  const ids = pages.flat();
  strictEqual(new Set(ids).size, ids.length, `a post is listed twice: ${ids}`);
  console.error(`listed ${ids.length} posts in ${pages.length} pages`);
  return pages;
}

async function visit(
  accounts: AccountServiceClient,
  posts: PostServiceClient,
  profiles: ProfileServiceClient,
): Promise<void> {
  const { token, account } = await join(accounts);

  const created = await publish(posts, token, { title: "First light", imageUrls: [IMAGE_URL] });
  const { post } = await call(posts.getPost.bind(posts), { postId: created.id }, token);
  strictEqual(post?.title, "First light");
  deepStrictEqual(post.imageUrls, [IMAGE_URL]);
  console.error(`posted ${IMAGE_URL}`);

  const error = await failure(publish(posts, token, { title: "" }));
  console.error(`refused: ${error.code}, ${error.reason} in ${error.fields}`);

  const written = [post.id];
  for (let number = 2; number <= 5; number++) {
    written.push((await publish(posts, token, { title: `Light ${number}` })).id);
  }
  const pages = await list(profiles, account.id, token);
  deepStrictEqual(pages.flat(), written.reverse(), "listed are not the posts, newest first");

  const saw = { username: account.username, user_id: account.id, post_id: post.id, error, pages };
  console.log(JSON.stringify(saw));
}

async function main(address: string, serviceConfig: string): Promise<void> {
  const insecure = credentials.createInsecure();
  const options = { "grpc.service_config": serviceConfig };
  const accounts = new AccountServiceClient(address, insecure, options);
  const posts = new PostServiceClient(address, insecure, options);
  const profiles = new ProfileServiceClient(address, insecure, options);
  try {
    await visit(accounts, posts, profiles);
  } finally {
    [accounts, posts, profiles].forEach((client) => client.close());
  }
}

const [address, serviceConfig] = process.argv.slice(2);
if (address === undefined || serviceConfig === undefined) {
  console.error("usage: client HOST:PORT SERVICE-CONFIG");
  process.exit(2);
}
main(address, serviceConfig).catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
