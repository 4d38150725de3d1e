# Runs PostgreSQL, with a database for each service, which belongs to the role of the same name.
set -eu
folder=/var/lib/database

if [ ! -e "$folder/main" ]; then
  # What an interruption left is not used.
  rm -rf "$folder/new"
  initdb --pgdata "$folder/new" --username insta --encoding UTF8 --locale C \
    --auth-local peer --auth-host reject >/dev/null
  for service in users posts social; do
    printf 'CREATE ROLE %s LOGIN\nCREATE DATABASE %s OWNER %s\n' $service $service $service
  done | postgres --single -D "$folder/new" -c exit_on_error=on postgres >/dev/null
  mv "$folder/new" "$folder/main"
fi
exec postgres -D "$folder/main" -c config_file=/etc/insta/database/postgresql.conf
