// Faye over long polls and WebSocket: messages in memory, without accounts. node server.js PORT
'use strict';

const http = require('node:http');
const faye = require('faye');

const server = http.createServer();
server.keepAliveTimeout = 600_000;
server.requestTimeout = 0;
new faye.NodeAdapter({ mount: '/faye', timeout: 600 }).attach(server);
server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 });
