# Runs SeaweedFS as an S3 server with the bucket `images`. A key is made at the first start, for who has the volume it is in.
set -eu
umask 077
key=/etc/insta/s3

if [ ! -e "$key/credentials" ]; then
  random() { head --bytes "$1" /dev/urandom | od --address-radix=n --format=x1 | tr -d ' \n'; }
  id=$(random 10) secret=$(random 32)
  # The form in which AWS tools take it.
  printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$id" "$secret" > "$key/credentials.new"
  # Anybody on the network may read what is in the bucket: the entrance hands out images, and nothing else of it.
  cat > "$key/identities.json" <<JSON
{"identities": [
  {"name": "posts", "credentials": [{"accessKey": "$id", "secretKey": "$secret"}],
   "actions": ["Read:images", "Write:images", "List:images", "Tagging:images"]},
  {"name": "anonymous", "actions": ["Read:images"]}]}
JSON
  mv "$key/credentials.new" "$key/credentials"
fi

# Its parts trust whoever reaches them: they are on loopback. Beyond it are S3, and on 18080 a port of its own that comes with
# it: that is why nobody is on its network but the entrance and posts.
weed -logtostderr=true server -dir=/var/lib/s3 -ip=127.0.0.1 -ip.bind=127.0.0.1 \
  -master.telemetry=false -master.volumeSizeLimitMB=1024 -volume.port=8081 -volume.max=0 -volume.minFreeSpace=1GiB \
  -volume.preStopSeconds=1 -filer=true -filer.localSocket=/tmp/filer.sock \
  -s3=true -s3.ip.bind=0.0.0.0 -s3.port=8080 -s3.port.iceberg=0 -s3.port.lance=0 -s3.localSocket=/tmp/s3.sock \
  -s3.config="$key/identities.json" -s3.iam=false -s3.autoCreateBucket=false &
server=$!
trap 'kill -TERM $server' TERM

rm -f /tmp/ready
shell() { echo "$1" | weed shell -master=127.0.0.1:9333 2>&1; }
until shell s3.bucket.list | grep --quiet images; do
  kill -0 $server
  shell 's3.bucket.create -name images' >/dev/null || sleep 1
done
touch /tmp/ready
# The first wait ends with the signal, the second with the server.
wait $server || wait $server
